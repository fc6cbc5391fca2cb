"""The suites that `pytest` alone leaves out."""

SUITES = {
    "slow": "several processes, or a job killed again and again",
    "large": "takes minutes or much disk",
    "stores": "needs MinIO and fake-gcs-server",
    "prism": "needs Beam's Prism runner",
    "peers": "needs the environment with torchvision, Keras and Datumaro (`make peers`)",
    "dataflow": "needs Beam's libraries for Google Cloud",
    "browser": "needs Chromium",
    "cluster": "needs a Flink cluster",
    "storage_faults": "jobs whose storage fails at one system call; needs Linux and gcc",
    "faults": "jobs that are killed at random moments, here and on a Flink cluster",
}
"""What is left out unless asked for: by its flag (`--slow`), its folder if it has one (`tests/cluster`), or `-m`.

A test belongs to a suite by a mark, or because it is in the suite's folder.
"""
