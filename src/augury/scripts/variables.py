"""The environment of a run: what it inherits, what the job says, what Augury says. Pure.

A run inherits nothing of the worker's own environment but a few harmless names, so no credential
of Augury's reaches a script. `${NAME}` in a value stands for the variable of that name,
`$${NAME}` for the text `${NAME}`, and a name that nobody set stays as it is: as OCI's SDK does it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from augury.scripts.workspace import TEMPORARY

INHERITED = (
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"),
)
OUTPUT_DIR = "OUTPUT_DIR"
OUTPUT_URI = "OUTPUT_URI"
_PLACES = (
    *("TENANCY_OCID", "PROJECT_OCID", "PROJECT_COMPARTMENT_OCID"),
    *("JOB_COMPARTMENT_OCID", "JOB_RUN_COMPARTMENT_OCID"),
)
_DEFAULT_OUTPUT_DIR = "outputs"
_HOLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")


def interpolate(values: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Fills `${NAME}` in all values from `known`; one pass, nothing nested."""

    def filled(match: re.Match[str]) -> str:
        escape, name = match.groups()
        if escape:
            return match[0][1:]
        return known.get(name, match[0])

    return {name: _HOLE.sub(filled, value) for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run's variables are made of.

    Attributes:
        attempt: counts from 1.
        home: the run's working folder.
        path: value of PATH.
        cpus: threads that it should use.
        output_uri: where its output goes; empty: nowhere.
        installation: stands for OCI's tenancy, compartment and project.
    """

    job_id: str
    job_name: str
    run_id: str
    run_name: str
    attempt: int
    artifact_name: str
    home: Path
    path: str
    cpus: int
    input_uris: Sequence[str]
    output_uri: str
    host: str
    installation: str


def run_environment(
    facts: RunFacts,
    inherited: Mapping[str, str],
    runtime: Mapping[str, str],
    job: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of a run.

    Args:
        facts: of the run.
        inherited: of the worker; only `INHERITED` is passed on.
        runtime: of `jobruntime.yaml`.
        job: of the job with the run's overrides on top.
    """
    defaults = {
        "PATH": facts.path,
        "HOME": str(facts.home),
        "TMPDIR": str(facts.home / TEMPORARY),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        OUTPUT_DIR: str(facts.home / _DEFAULT_OUTPUT_DIR),
        **dict.fromkeys(THREADS, str(facts.cpus)),
    }
    if facts.output_uri:
        defaults[OUTPUT_URI] = facts.output_uri
    passed = {name: inherited[name] for name in INHERITED if name in inherited}
    said = {**runtime, **job}
    known = {**defaults, **passed, **said, **_own(facts)}
    merged = {**known, **interpolate(said, known), **_own(facts)}
    merged[OUTPUT_DIR] = str(facts.home / merged[OUTPUT_DIR])  # a relative one is below home
    twins = {"AUGURY_OUTPUT_DIR": merged[OUTPUT_DIR]}
    if OUTPUT_URI in merged:
        twins["AUGURY_OUTPUT_URI"] = merged[OUTPUT_URI]
    return {**merged, **twins}


def _own(facts: RunFacts) -> dict[str, str]:
    """What nobody else may say."""
    return {
        **dict.fromkeys(_PLACES, facts.installation),
        "JOB_OCID": facts.job_id,
        "JOB_RUN_OCID": facts.run_id,
        "JOB_ARTIFACT_FILE_NAME": facts.artifact_name,
        "LOG_OBJECT_OCID": facts.run_id,
        "FQDN": facts.host,
        "AUGURY_JOB_ID": facts.job_id,
        "AUGURY_JOB_NAME": facts.job_name,
        "AUGURY_RUN_ID": facts.run_id,
        "AUGURY_RUN_NAME": facts.run_name,
        "AUGURY_RUN_ATTEMPT": str(facts.attempt),
        "AUGURY_JOB_ARTIFACT_FILE_NAME": facts.artifact_name,
        "AUGURY_INPUT_URIS": json.dumps(list(facts.input_uris)),
    }
