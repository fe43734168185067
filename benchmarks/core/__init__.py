"""The few-shot evaluation, its table, its statistics and its report; the runner of studies."""
