module crowd
go 1.21
