# %% [markdown]
# # A first flow
