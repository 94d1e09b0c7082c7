"""What tests share: databases, clusters, hosts, terminals, processes and the command itself."""
