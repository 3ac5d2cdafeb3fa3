// Ball of radius 2 about the origin.
SetFactory("OpenCASCADE");
Mesh.MshFileVersion = 4.1;
Mesh.Binary = 1;
Mesh.MeshSizeMin = 0.4;
Mesh.MeshSizeMax = 0.4;

Sphere(1) = {0, 0, 0, 2};

Physical Volume("ball", 1) = {1};
Physical Surface("boundary", 2) = {1};
