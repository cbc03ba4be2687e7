"""Images by class in the forms that people have them: folders, archives, lists, Parquet, arrays. One file a form."""
