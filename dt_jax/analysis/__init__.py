"""Analysis of finished and running runs: experiments, scores, tables, plots, report."""
