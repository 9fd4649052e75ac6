"""Networks from elsewhere: files of other frameworks become float networks, or frozen ones where they are integers.

One module per framework knows what it means by its neurons (:mod:`codesign.interchange.sources`); the graph of a NIR
file is read without it (:mod:`codesign.interchange.nir_file`). Nothing is guessed: what neither file nor framework nor
option says is an error that names the option. No torch, no amaranth, and none of the frameworks.
"""
