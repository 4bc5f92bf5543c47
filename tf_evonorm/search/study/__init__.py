"""The study that many workers share: evolution, the database, results and their report."""
