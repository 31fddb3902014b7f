"""Tasks: data, objective and metrics by which a model is trained and judged. `archdsl explain TASK` shows one. Nothing here loads torch before a
batch is asked for."""
from __future__ import annotations

from archdsl.tasks.model import IGNORE, SPLITS, Axis, Task, TokenTask
from archdsl.tasks.registry import TASKS, parse, task, wrong_option

__all__ = ["IGNORE", "SPLITS", "TASKS", "Axis", "Task", "TokenTask", "parse", "task", "wrong_option"]
