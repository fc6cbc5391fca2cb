"""WebDataset: finding shards (`source`), reading samples (`rows`), writing (`sink`). Loaded by the registry."""
