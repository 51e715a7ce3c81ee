"""Config: the schema of each verb's config, and the construction of components from config nodes."""
