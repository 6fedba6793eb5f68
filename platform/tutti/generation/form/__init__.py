"""Form of a long piece: what is asked, the plan of its sections, and how they are made one by one."""
