# %% [markdown]
# # A normalising flow on a mesh
