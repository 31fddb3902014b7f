"""Which axes of a model's weights belong together. Free of torch.

Every axis of every weight is taken apart into groups: a product of groups (`heads × width`, the outer one first), groups one behind another (the
halves of a gated projection), or a group itself. Axes that an op adds, contracts or normalises together have their groups in common: to leave out,
keep or permute a channel here is to do so in all of them. What signatures say of axes by name (`linear(x: [..., i], weight: [o, i]) -> [..., o]`)
serves most ops; those that merge, cut and join axes have a rule each.
"""
from archdsl.coupling.groups import Axes, Group
from archdsl.coupling.places import channels, places, within
from archdsl.coupling.walk import Coupling, groups_of

__all__ = ["Axes", "Coupling", "Group", "channels", "groups_of", "places", "within"]
