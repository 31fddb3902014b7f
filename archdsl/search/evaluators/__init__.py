"""Evaluators: what measures a candidate. Each is a class registered with `@evaluator`; none imports torch before it is set up."""
