"""What stands behind `cxr serve`: uploads, the queue, the answers, the door, the page. docs/serving.md explains it."""
