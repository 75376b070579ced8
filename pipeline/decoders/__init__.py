"""From the bytes of a file to a film: PNG, JPEG, TIFF and DICOM. `pipeline.images` is the door to it."""
