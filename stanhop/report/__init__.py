"""The HTML report of runs: what is collected, drawn and put on one page that needs nothing else."""
