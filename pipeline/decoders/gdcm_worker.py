"""Runs GDCM in a process of its own: on damaged JPEG streams, two to ten in a hundred of those tried, it aborts.

As a program it takes the numbers of a frame as arguments, the frame on stdin, and writes the raw samples to stdout.
"""

import signal
import subprocess
import sys

_NO_GDCM = 3
SECONDS = 60
"""After which a frame is given up."""
_KILLED = {-signal.SIGKILL, -signal.SIGTERM}
"""Exit statuses by another's will, such as the kernel's when memory runs out; GDCM ends by SIGABRT or SIGSEGV."""
_ENDS_EARLY = b"premature end of data segment"
"""What the libjpeg inside GDCM says (jerror.h, JWRN_HIT_MARKER) where GDCM itself says nothing and fills with gray."""


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
        Code `truncated` if GDCM refuses the frame, ends its process or finds too few coded data; `decoder-gave-up` if
        it takes longer than `SECONDS` or is killed, which may be the fault of a busy machine.
    """
    from pipeline.decoders.film import ImageError  # here, so that the other process starts in a fifth of a second
    from pipeline.errors import UserError
    from pipeline.quarantine import Reason

    command = [sys.executable, "-I", __file__, syntax, *map(str, (*shape, *bits))]
    size = shape[0] * shape[1] * shape[2] * bits[0] // 8
    failed = ImageError(Reason.TRUNCATED, "damaged or truncated (pixel data)")
    try:
        done = subprocess.run(command, input=frame, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        late = f"the decoder took longer than {SECONDS} seconds: ingest it again when the machine is less busy"
        raise ImageError(Reason.GAVE_UP, late) from None
    if done.returncode == _NO_GDCM:
        raise UserError(f"GDCM, which decodes lossless JPEG, cannot be imported by {sys.executable}: run `make setup`")
    if done.returncode in _KILLED:
        raise ImageError(Reason.GAVE_UP, "the decoder was killed: ingest it again when there is more free memory")
    if _ENDS_EARLY in done.stderr:
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (the coded picture ends early)")
    if done.returncode or len(done.stdout) < size:
        raise failed
    return done.stdout[:size]


def main() -> int:
    """Decode the frame on stdin; status 1 where GDCM refuses it, 3 where there is no GDCM."""
    try:
        import gdcm
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
