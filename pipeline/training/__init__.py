"""How one network is built and fitted; the stage `train` calls it."""
