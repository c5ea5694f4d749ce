"""Turn a container image into a template file for Proxmox VE.

    python examples/image_to_template.py debian:13 debian-13.tar.zst
    python examples/image_to_template.py oci:LAYOUT:latest base.tar oci

The source is a registry reference, `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`.  The third argument
is the format: `rootfs` for every Proxmox VE, which is the default, or `oci` for 9.1 and later.
"""

import sys

import syncd


def main(source: str, output: str, form: str = "rootfs") -> None:
    """Write the template and print what was written."""
    image = syncd.open_image(source, platform="linux/amd64")
    done = syncd.flatten(image, output, format=form, level=3)
    print(f"{output}: {done.size} bytes, {done.digest}, diff_id {done.diff_id}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except syncd.SyncdError as exc:
        sys.exit(f"error: {exc}")  # one sentence: what, where, and what to do about it
