"""WebDataset: finding shards and labels (`source`), reading samples (`rows`), writing (`sink`); loaded by the registry."""
