# %% [markdown]
# # Your own mesh, density, loss and model
