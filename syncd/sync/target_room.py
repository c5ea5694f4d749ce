"""Whether a target has room for a template: looked at before anything is fetched.

A disk that fills up while a job runs takes other jobs along, and the node of a cluster, too.  What
the template will take is estimated from the sizes in the manifest: about as much as its compressed
layers.
"""

from __future__ import annotations

from syncd.oci import Image
from syncd.sync.context import SyncContext
from syncd.targets import RoomyTarget, Target, file_name


def require_room_in(context: SyncContext, target: Target, image: Image) -> None:
    """Raise NoRoomError when a target lacks room for the template of an image.  Blocking.

    Only a target that tells its room is asked; one that cannot be asked raises PublishError.
    """
    if isinstance(target, RoomyTarget):
        form = context.format_for(target)
        size = sum(layer.descriptor.size for layer in image.layers)
        target.require_room(file_name(context.settings.name, context.reference, image, form), size)
