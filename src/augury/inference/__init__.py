"""Inference runs: the plan, scoring one shard, building the manifest, the next step of a run."""
