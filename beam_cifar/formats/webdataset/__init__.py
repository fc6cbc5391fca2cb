"""WebDataset: finding shards and their labels (`source`), reading samples (`rows`), and writing (`sink`).

The registry loads these modules.
"""
