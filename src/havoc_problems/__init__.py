"""Verified problems in mathematics, statistics, SPC, DOE and engineering: statement, solution, answer, grader."""
