r"""What datasets and models are called and how they are coloured, the same in all tables and figures."""

NAMES = {
    'scientific': 'Scientific',
    'movielens': 'MovieLens-100K',
    'microlens_50k': 'MicroLens-50k',
    'scientific_text': 'Scientific (text)',
    'hm_week': 'H&M week',
    'lastfm': 'Last.fm',
    'beauty': 'Beauty',
    'baby_ids': 'Baby',
    'sports_ids': 'Sports',
    'clothing_ids': 'Clothing',
}

PAPER, OURS, OTHERS = 'LIRDRec', ('autofit', 'SoftmaxLIRDRec'), '#7f8c96'

COLORS = {  # one for each model: blue is the paper's, orange is ours
    'LIRDRec': '#1f5fa8',
    'autofit': '#d1480f',
    'SoftmaxLIRDRec': '#f2913d',
    'FREEDOM': '#2f8f5b',
    'MGCN': '#8fb339',
    'BM3': '#8c6d46',
    'VBPR': '#7a5aa6',
    'AlphaRec': '#c2577f',
    'LightGCN': '#17a2a8',
    'BPRMF': '#b79ad1',
    'EASE': '#4d4d4d',
    'ContentKNN': '#9aa5ad',
    'Popularity': '#c9ced2',
}

OTHER_NAMES = {'BPRMF': 'BPR-MF', 'ContentKNN': 'content kNN', 'Popularity': 'popularity'}

KNOWS = {  # what a model knows an item by
    'autofit': 'content',
    'LIRDRec': 'content',
    'SoftmaxLIRDRec': 'content',
    'AlphaRec': 'content',
    'ContentKNN': 'content',
    'FREEDOM': 'IDs and content',
    'MGCN': 'IDs and content',
    'BM3': 'IDs and content',
    'VBPR': 'IDs and content',
    'LightGCN': 'IDs',
    'BPRMF': 'IDs',
    'EASE': 'IDs',
    'Popularity': 'counts',
}

WORDS = {  # what a variant of an experiment is
    'LIRDRec, as wide': 'LIRDRec, 256 wide',
    'LIRDRec and item IDs': 'LIRDRec with item IDs beside its content',
    'item IDs alone': 'item IDs in place of its content',
    'item IDs alone, no item graph': 'item IDs in place of all content',
    'LightGCN, as wide': 'LightGCN, 256 wide',
    'softmax': 'softmax for BPR',
    'softmax, scored by cosines': 'softmax for BPR, ranked by cosines',
    'PWC ema': "PWC as the paper's text has it",
    'PWC attention': 'attention for PWC',
    'PWC static': 'fixed learned weights for PWC',
    'PWC uniform': 'equal weights for PWC',
    'no PWC': 'views side by side, no weights',
    'no transform': 'no DCT',
    'DCT over items, too': 'DCT over items, too',
    'random rotation': 'a random rotation for the DCT',
    'learned rotation': 'a learned rotation for the DCT',
    'PCA': 'PCA for the DCT',
    'whitened PCA': 'whitened PCA for the DCT',
    'no item graph': 'no item graph',
    'no shared branch': 'no shared branch',
    'no own branches': 'no branch for each modality',
    'one user table': 'one vector a user for all views',
    'k = 5': '5 neighbours for 10',
    'k = 20': '20 neighbours for 10',
    'image weight 0.3': 'image weight 0.3 for 0.1',
    'image weight 0.5': 'image weight 0.5 for 0.1',
    '1 layer': '1 layer for 2',
    '3 layers': '3 layers for 2',
    'titles alone': 'titles alone',
}


def shown(name: str) -> str:
    r"""Returns what a model is called, and whether it is the paper's or ours."""
    kind = ' (paper)' if name == PAPER else ' (ours)' if name in OURS else ''
    return OTHER_NAMES.get(name, name) + kind


def color(variant: str) -> str:
    r"""Returns the colour of a model, or of the one that a variant is made of."""
    return COLORS.get(variant.partition(',')[0], OTHERS)
