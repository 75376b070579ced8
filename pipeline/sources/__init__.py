"""Where images come from: Kaggle, local archives and folders. The stage `download` is the door to it."""
