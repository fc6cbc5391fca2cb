"""WebDataset: finding shards and their labels (`source`), the samples of one (`rows`), and writing (`sink`).

Loaded by the registry.
"""
