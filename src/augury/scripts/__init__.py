"""Script jobs: what an artifact holds, and one run of it from the folder to the exit code."""
