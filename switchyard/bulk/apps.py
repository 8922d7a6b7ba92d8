from switchyard.room_app import room_app

BulkConfig = room_app("switchyard.bulk", "Bulk acts")
