"""What `cxr monitor` is made of: the reference, the signals, their tests, the bets on them, and what is told.

docs/monitoring.md says which test is used for what, why it is valid, and how often it errs.
"""
