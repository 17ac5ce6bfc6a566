"""Container images out of files of this machine: one layer, as the archive that `ctr images import` takes."""

import hashlib
import io
import json
import os
import tarfile

FOLDERS = ("bin", "dev", "etc", "lib64", "proc", "run", "sys", "tmp", "usr/bin", "var")


def _folder(archive, made, name):
    if not name or name in made:
        return
    _folder(archive, made, os.path.dirname(name))
    made.add(name)
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(entry)


def _layer(files, links):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        made = set()
        for folder in FOLDERS:
            _folder(archive, made, folder)
        for inside, outside in sorted(files.items()):
            inside = inside.lstrip("/")
            _folder(archive, made, os.path.dirname(inside))
            entry = tarfile.TarInfo(inside)
            entry.mode, entry.size = 0o755, os.path.getsize(outside)
            with open(outside, "rb") as source:
                archive.addfile(entry, source)
        for inside, target in sorted(links.items()):
            inside = inside.lstrip("/")
            _folder(archive, made, os.path.dirname(inside))
            entry = tarfile.TarInfo(inside)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()


def write_image(path, name, entrypoint, files, links=None):
    """Writes image `name` ("gpuslice.test/pause:1") to `path`; files: {path in the image: path here}."""
    layer = _layer(files, links or {})
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [digest + "/layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for entry_name, data in ((config_name, config), (digest + "/layer.tar", layer), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(entry_name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
