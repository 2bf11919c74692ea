"""The API of one Prefect server, read: what is asked, and the answers as typed objects."""
