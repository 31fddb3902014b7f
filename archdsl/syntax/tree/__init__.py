"""The syntax tree: one record per construct, each with the span of its text. Spans do not take part in equality."""
from archdsl.syntax.tree.declarations import *  # noqa: F403
from archdsl.syntax.tree.expressions import *  # noqa: F403
from archdsl.syntax.tree.node import *  # noqa: F403
from archdsl.syntax.tree.statements import *  # noqa: F403
from archdsl.syntax.tree.types import *  # noqa: F403
