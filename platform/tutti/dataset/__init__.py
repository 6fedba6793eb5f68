"""From token shards to global batches: order, packing, loader."""
