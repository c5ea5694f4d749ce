"""Whether a job has room: looked at before anything is fetched.

A disk that fills up while a job runs takes other jobs along, and the node of a cluster, too.  What
a job will need is estimated from the sizes in the manifest: a template takes about as much as its
compressed layers, the conversion needs the finished template and about as much again for what is
unpacked, and the blob cache takes the layers that it does not have yet.
"""

from __future__ import annotations

from syncd.errors import StorageError
from syncd.files import require_free
from syncd.oci import Descriptor, Image
from syncd.sync.context import Running, SyncContext
from syncd.targets import RoomyTarget, Target, file_name


class Room:
    """Looks at free space.  Blocking; safe to use from several threads."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def require(self, context: SyncContext, target: Target, image: Image, *, made: bool) -> None:
        """Raise NoRoomError when the state or the target lacks room for a job.

        With `made` the finished template is here, and the state needs nothing more.  Only a target
        that tells its room is asked; one that cannot be asked raises PublishError.  Raise
        StorageError when the state's disk cannot be looked at.
        """
        size = sum(layer.descriptor.size for layer in image.layers)
        if not made:
            self._require_of_state(image, size)
        if isinstance(target, RoomyTarget):
            form = context.format_for(target)
            target.require_room(
                file_name(context.settings.name, context.reference, image, form), size
            )

    def _require_of_state(self, image: Image, size: int) -> None:
        state = self._running.config.state
        blobs = [layer.descriptor for layer in image.layers]
        fetched = sum(blob.size for blob in blobs if not self._is_cached(blob))
        needed = min(fetched, state.cache_max) + 2 * size
        directory = state.paths.directory
        try:
            require_free(directory, needed, state.reserve, str(directory))
        except OSError as exc:
            raise StorageError(f"{directory} cannot be looked at: {exc.strerror}") from exc

    def _is_cached(self, layer: Descriptor) -> bool:
        digest = layer.digest
        folder = self._running.config.state.paths.blob_cache / "blobs" / digest.algorithm
        return (folder / digest.encoded).exists()
