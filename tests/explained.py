"""Plans of what a connection runs, with the rows that each step came across, as notices."""

from typing import LiteralString

EXPLAINED: LiteralString = """
    load 'auto_explain';
    set auto_explain.log_level = 'notice';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_analyze = on;
    set auto_explain.log_timing = off;
    set auto_explain.log_nested_statements = on"""
