"""Tests of `diagnose`: cases with a name, right and wrong pairs by Hypothesis, and every fix."""
