"""Jobs and runs: templates, their executions, the state machine, and the work that has to run."""
