"""Its presence puts this folder, and so the helpers in it, on the path of the tests in its sub-folders."""
