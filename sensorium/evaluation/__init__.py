"""Benchmarks, metrics, runner, report. Models are seen only as Responders."""
