"""Seeds for the fuzz targets. Usage: make_seeds.py FOLDER CAPTURE...

FOLDER gets a folder for each target: decoder (packets in its format), pcap_reader (small captures as they are,
gzipped, and the head of each larger one) and pipeline_file (the pipelines of this repository, and texts that are
nested deep)."""
import gzip
import pathlib
import shutil
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = 4096  # what scripts/fuzz gives as -max_len, except to pipeline_file
# DLT_* to the place in the table of decoder.cpp.
LINKS = {1: 0, 12: 1, 101: 1, 0: 2, 108: 3, 229: 4, 113: 5, 276: 6}


def decoder_seed(capture: bytes) -> bytes:
    """The first packets of a little-endian classic capture: link type, seconds since the last, size, bytes."""
    if len(capture) < 24 or capture[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        return b""
    link = LINKS.get(struct.unpack_from("<I", capture, 20)[0])
    out, at, last = bytearray(), 24, None
    while link is not None and at + 16 <= len(capture) and len(out) < SMALL - 258:
        seconds, _, size = struct.unpack_from("<III", capture, at)
        packet = capture[at + 16:at + 16 + min(size, 255)]
        out += bytes((link, min(max(seconds - (last or seconds), 0), 255), len(packet))) + packet
        last = seconds
        at += 16 + size
    return bytes(out)


def main(folder: pathlib.Path, captures: list[str]) -> None:
    for target in ("decoder", "pcap_reader", "pipeline_file"):
        (folder / target).mkdir(parents=True, exist_ok=True)
    for path in map(pathlib.Path, captures):
        data = path.read_bytes()
        (folder / "pcap_reader" / path.name).write_bytes(data[:SMALL])
        if len(data) <= SMALL:
            (folder / "pcap_reader" / f"{path.name}.gz").write_bytes(gzip.compress(data, mtime=0))
        if seed := decoder_seed(data):
            (folder / "decoder" / path.name).write_bytes(seed)
    for path in (*ROOT.glob("pipelines/*.toml"), *ROOT.glob("examples/**/*.toml")):
        shutil.copy(path, folder / "pipeline_file" / path.name)
    for name, text in {"key": "a." * 30000 + "a = 1\n", "header": "[" + "a." * 30000 + "a]\n", "list": "a = " + "[" * 60000,
                       "table": "a = " + "{a = " * 20000, "text": "a = '''\n" + "[a." * 20000 + "\n'''\n"}.items():
        (folder / "pipeline_file" / f"deep-{name}.toml").write_text(text)


main(pathlib.Path(sys.argv[1]), sys.argv[2:])
