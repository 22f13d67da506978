"""Starting the processes of a job on a cluster."""
