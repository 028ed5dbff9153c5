"""What people read of studies: pages, tables and figures."""
