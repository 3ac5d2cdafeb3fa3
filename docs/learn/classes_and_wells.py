# %% [markdown]
# # Classes and wells
