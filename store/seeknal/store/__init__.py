"""The content-addressed artifact store: blobs, action records, trees, snapshots and refs.

Knows nothing of nodes, SQL or YAML. See :class:`seeknal.store.store.Store` for the invariants.
"""
