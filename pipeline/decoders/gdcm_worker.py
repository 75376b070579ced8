"""Runs GDCM in a process of its own: on damaged JPEG streams, two to ten in a hundred of those tried, it aborts.

As a program it takes the numbers of a frame as arguments, the frame on stdin, and writes the raw samples to stdout.
"""

import subprocess
import sys

_NO_GDCM = 3
SECONDS = 60
"""After which a frame is given up."""


def decode(frame: bytes, syntax: str, shape: tuple[int, int, int], bits: tuple[int, int, int]) -> bytes:
    """Decode one compressed frame.

    Parameters
    ----------
    frame : bytes
        The codestream, whose own header was compared with `shape` before.
    syntax : str
        Transfer syntax UID.
    shape : (rows, columns, samples)
        Of the frame.
    bits : (allocated, stored, signed)
        Bits of a sample, and 1 for signed ones.

    Returns
    -------
    bytes
        Samples by pixel, little endian.

    Raises
    ------
    ImageError
        If GDCM refuses the frame, ends its process or takes longer than `SECONDS`.
    """
    from pipeline.decoders.film import ImageError  # here, so that the other process starts in a fifth of a second
    from pipeline.errors import UserError
    from pipeline.quarantine import Reason

    command = [sys.executable, "-I", __file__, syntax, *map(str, (*shape, *bits))]
    size = shape[0] * shape[1] * shape[2] * bits[0] // 8
    failed = ImageError(Reason.TRUNCATED, "damaged or truncated (pixel data)")
    try:  # stderr: libjpeg's remarks
        done = subprocess.run(command, input=frame, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise failed from None
    if done.returncode == _NO_GDCM:
        raise UserError(f"GDCM, which decodes lossless JPEG, cannot be imported by {sys.executable}: run `make setup`")
    if done.returncode or len(done.stdout) < size:
        raise failed
    return done.stdout[:size]


def main() -> int:
    """Decode the frame on stdin; status 1 where GDCM refuses it, 3 where there is no GDCM."""
    try:
        import gdcm  # type: ignore[import-untyped]
    except ImportError:
        return _NO_GDCM

    rows, columns, samples, allocated, stored, signed = map(int, sys.argv[2:])
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(sys.stdin.buffer.read())
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    kinds = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(kinds(kinds.MONOCHROME2 if samples == 1 else kinds.RGB))
    if samples > 1:
        image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(sys.argv[1])))
    image.SetPixelFormat(gdcm.PixelFormat(samples, allocated, stored, stored - 1, signed))
    content = image.GetBuffer()
    if content is None:
        return 1
    sys.stdout.buffer.write(content.encode("utf-8", "surrogateescape"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
