"""Getting data in: sources, recognition, the pipeline, whole backups. Synchronous and silent."""
