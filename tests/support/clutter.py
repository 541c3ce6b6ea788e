"""What systems, file servers and programs leave in folders."""

CLUTTER = (
    ".DS_Store", "._sub-verse900_ct.nii.gz", ".Spotlight-V100/x", "__MACOSX/x", "Icon\r",
    "Icon\uf00d", "Thumbs.db", "thumbs.DB", "ehthumbs.db", "desktop.ini", "Desktop.ini", "$RECYCLE.BIN/x",
    "RECYCLER/x", "System Volume Information/x", "found.000/x", "sub-verse900_ct.nii.gz:Zone.Identifier",
    "@eaDir/sub-verse900_ct.nii.gz", "#recycle/x", "@Recycle/x", "#snapshot/x", "lost+found/x",
    ".snapshot/x", "~snapshot/x", "@GMT-2020.01.01-00.00.00/x", ".nfs0001", "~$phantom_grading.xlsx",
    ".~lock.phantom_grading.xlsx#", "Thumbs.db:encryptable", "TheVolumeSettingsFolder/x", "Desktop DB",
    "#sync/x", "$WinREAgent/x", "IconCache.db", "sub-verse900_ct.nii.gz~", "aquota.user",
)  # fmt: skip
